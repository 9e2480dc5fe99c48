"""Why the wrong ones tempt: step, batch and epoch sound alike. A batch is what a step learns from;
an epoch is as many steps as it takes to see all pictures once."""
steps_of_an_epoch = 1_200_000 // 128                   # 9,375, and nothing is left over
answer = 90 * steps_of_an_epoch
