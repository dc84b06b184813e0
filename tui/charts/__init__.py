"""The arithmetic of pictures made of characters: numpy in, characters and names of colours out; no Textual."""
