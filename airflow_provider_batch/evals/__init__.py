"""Evals: grade the answers of models and compare each run with earlier ones.

A *case* is a question with its expected answer. A *run* sends every case to every model (a *variant*), optionally
several times (*repeats*), in one batch job per model. The answers land in the results table `eval_answers`. Everything
after that only reads and writes tables, so it can be repeated without paying again:

    cases        the cases that a query returns, checked before anything is paid for
    graders      one answer -> a score, right or wrong, and why
    judging      the verdicts of several judges -> their majority, and how far they agree with people
    grading      the answers of a run -> a grade for each
    spool        the grades of a run in a temporary file, for runs of any size
    summary      grades -> accuracy per model and tag, with an interval
    compare      grades of a run and its baseline -> better, worse, and whether chance explains the difference
    permutation  whether chance explains what got better or worse, over all cases and per tag
    statistics   intervals, and the correction of p-values for several models
    sentences    sentences about a comparison that the log, the gate and the report share
    tables       the columns of the tables, and the SQL of a gate
    store        reads and writes those tables in a warehouse
    costs        estimated and actual costs of a run
    report       a graded run as one HTML file, with `plots`; `read_report` and `read_cases` read it from the tables
                 with `queries`, and `page` names the file in staging
    matrix       all answers of a run, and how two runs differ, for the page in Airflow; `read_matrix` reads them
    imports      evals of other tools -> cases; `import_files` opens their files, `case_table` writes the cases

All modules except `store`, `queries`, `read_…`, `page`, `import_files` and `case_table` are pure: no Airflow, no
database, no network.
"""
