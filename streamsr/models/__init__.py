"""Networks in pure torch: the students, the SRGAN generator and its discriminator."""
