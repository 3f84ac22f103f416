"""Evals: answers of models, held against what was expected of them.

A case is a question with its expected answer. A run asks every case of every model (a *variant*), some of them
several times (*repeats*), as a batch job each; what came lies in the results table `eval_answers`. From there on
nothing is asked any more, so all that follows can be done again at no cost:

    cases      what is asked, checked before anything is paid for
    graders    one answer -> right or wrong, and why
    grading    the answers of a run -> a grade for each
    summary    grades -> accuracy per model and tag, with an interval
    compare    grades of two runs -> better, worse, and whether that can be chance
    statistics the three figures behind both, from scipy
    tables     the tables that all of it lies in, and queries over them
    store      those tables in a warehouse
    costs      what a run was expected to cost, beside what it did
    report     a graded run as one HTML file, with `plots`; from the tables by `read_report`, into staging by `page`

All but `store`, `read_report` and `page` are pure: no Airflow, no database, no network.
"""
