"""How the tokens of a ragged batch see each other, and nothing else."""

from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from transformers import PretrainedConfig
from transformers.masking_utils import create_bidirectional_mask


def padding_mask(config: PretrainedConfig, states: Tensor, mask: Tensor) -> Tensor | BlockMask | None:
    """The mask that CLIP's layers take so that no token sees padding.

    Built by transformers for whichever attention implementation ``config`` names: a plain boolean mask is silently wrong
    with eager attention and crashes flex attention. None where nothing is padded.

    Args:
        config: The tower's configuration.
        states: ``(B, 1 + N, D)``, class token first.
        mask: ``(B, N)`` bool, true for patches.
    """
    with_class = mask.new_ones(mask.shape[0], 1 + mask.shape[1])
    with_class[:, 1:] = mask
    return create_bidirectional_mask(config=config, inputs_embeds=states, attention_mask=with_class)
