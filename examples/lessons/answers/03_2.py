"""Why the wrong ones tempt: 8 is what PyTorch and tinynet give after a second forward pass, since
there only leaves keep their gradients."""
a = b = 0
for _ in range(2):
    c = 1
    b = b + c + c                  # 2, then 4
    a = a + b + b                  # 4, then 12
answer = a
