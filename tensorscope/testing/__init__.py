"""Property tests for your own modules, with Hypothesis: tensors whose sizes agree with each other, and odd ones first.

    from hypothesis import given
    from tensorscope.testing import arguments, check_contract, tensors

    @given(tensors("batch seq dim", sizes={"dim": 64}))
    def test_a_norm_keeps_the_shape(x):
        assert norm(x).shape == x.shape

    @given(arguments(attend))
    def test_attention_is_finite(call):
        assert attend(*call.args, **call.kwargs).isfinite().all()

    def test_the_block_does_what_its_contract_says():
        check_contract(Block(dim=64, heads=4), sizes={"dim": 64})

Needs the package `hypothesis`. Tensors are made on the CPU.
"""

from tensorscope.testing.checking import check_contract as check_contract
from tensorscope.testing.drawing import Call as Call
from tensorscope.testing.drawing import arguments as arguments
from tensorscope.testing.drawing import tensors as tensors
from tensorscope.testing.sizes import broadcastable as broadcastable
from tensorscope.testing.sizes import odd_sizes as odd_sizes
