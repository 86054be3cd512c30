"""From a batch of irregular series to what a latent process needs to know about each of them."""

from .base import Encoder, Encoding, Sites, start_time
from .gru import GRUEncoder
from .ode_rnn import ODERNNEncoder
from .sites import SiteEncoder


__all__ = ["Encoder", "Encoding", "GRUEncoder", "ODERNNEncoder", "SiteEncoder", "Sites", "start_time"]
