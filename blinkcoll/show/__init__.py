"""Tables and pictures of what the other rooms make; imported by the command line only."""
