"""From a batch of irregular series to what a latent process, or a label, needs to know about each of them."""

from .attention import AttentionEncoder
from .base import Encoder, Encoding, Sites, start_time
from .bidirectional_gru import BidirectionalGRUEncoder
from .bidirectional_state_space import BidirectionalStateSpaceEncoder
from .cde import CDEEncoder
from .cell import CellEncoder
from .convolution import ConvolutionEncoder
from .gru import GRUEncoder
from .joint import JointEncoder
from .ode_rnn import ODERNNEncoder
from .reverse_gru import ReverseGRUEncoder
from .sites import SiteEncoder
from .start import StartEncoder
from .state_space import StateSpaceEncoder
from .summary import SummaryEncoder


__all__ = [
    "AttentionEncoder",
    "BidirectionalGRUEncoder",
    "BidirectionalStateSpaceEncoder",
    "CDEEncoder",
    "CellEncoder",
    "ConvolutionEncoder",
    "Encoder",
    "Encoding",
    "GRUEncoder",
    "JointEncoder",
    "ODERNNEncoder",
    "ReverseGRUEncoder",
    "SiteEncoder",
    "Sites",
    "StartEncoder",
    "StateSpaceEncoder",
    "SummaryEncoder",
    "start_time",
]
