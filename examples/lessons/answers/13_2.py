"""Why the wrong ones tempt: a rate that is divided by 10 sounds as if steps were a tenth from
now on. In the paper's form they glide, and 1 / (1 - 0.9) = 10 is the time constant only."""
length, answer = 10.0, 0                # in units of the new length
while length >= 2:
    length = 0.9 * length + 0.1         # what is left of the old, and what the new rate adds
    answer += 1
