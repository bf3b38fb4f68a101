"""Published weights of other packages, written as the diffusers-format folders that cxrg reads."""
