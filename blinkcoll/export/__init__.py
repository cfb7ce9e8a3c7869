"""Other formats that plans, programs and timings are written in."""
