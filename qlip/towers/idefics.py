"""The SigLIP of Idefics 3 and SmolVLM."""

from qlip.towers.packing import Packing
from qlip.towers.siglip import Siglip


class Idefics(Siglip, hosts=("Idefics3VisionTransformer", "SmolVLMVisionTransformer")):
    """As SigLIP, without a vector for a whole image.

    On another grid transformers reads for each patch the one entry of the table under its upper left corner. No position here
    does: ``"nearest"`` reads the entry nearest to the centre, which is the same where the grid is a whole multiple of the
    table's, and the others go smoothly between entries, so that leaves within one entry are told apart.
    """

    def pool(self, states: object, packing: Packing) -> None:
        """None: there is no head."""
        return None
