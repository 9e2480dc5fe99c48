"""What does a net cost, how fast is it, and what of this machine is broken?"""
