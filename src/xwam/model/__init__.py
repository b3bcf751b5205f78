"""The network and the pretrained parts behind protocols."""
