"""The tables of the paper (Jun et al. 2025), by one command each: `unweave reproduce table1`.

printed     the numbers that the paper prints
recipes     what is trained for a table: published sets and schedules, or small ones on generated data
plan        the jobs of a table, each with its own folder
costs       an estimate of the time and disk space they take, measured on this machine
job         one job: train, encode, score
pool        jobs in parallel, one per device
table       the results of the jobs as Markdown and JSON
command     all of it in order
"""
