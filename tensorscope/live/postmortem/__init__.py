"""What can be found out about a shape error once it has happened."""
