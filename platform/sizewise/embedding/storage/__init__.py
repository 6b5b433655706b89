"""How the numbers of an embedding are stored: float32, bfloat16, or codes of 8, 4 or 2 bits.

table.Table(numbers, storage="int4")       # trained, and read as it will be deployed
quantization.pack, quantization.unpack     # codes of several numbers in one byte
rounding, learned_step                     # the two ways to few bits: after training, and while training
"""
