"""The paper's tables by one command each: `unweave reproduce table1`.

printed     the numbers that the paper prints
recipes     what is trained for a table: published sets and schedules, or small ones on generated data
plan        which pieces there are, in folders of their own
costs       what they will take, measured on this machine
piece       one piece: train, encode, score
pool        pieces side by side, one per device
table       finished pieces as Markdown and JSON
command     all of it in order
"""
