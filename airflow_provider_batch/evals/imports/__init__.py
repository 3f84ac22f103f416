"""Imports of evals that were written for other tools, as cases of the table `eval_cases`.

    sources    the options of an import, and the files that it may read
    reading    bytes -> text, JSON and CSV, within limits, with the line of an error; `yaml_values` reads YAML
    messages   chat messages -> the one text that a case sends
    drafts     a test of a file -> a case or the reason why there is none; ids, duplicates, checks
    values     values as text
    plain      CSV, JSON and JSON lines, with a mapping of columns
    openai     OpenAI evals: registry YAML and samples
    inspect_ai       samples of inspect_ai; `inspect_scorers` maps their scorers
    promptfoo        configurations of promptfoo; `promptfoo_asserts` maps assertions, `promptfoo_csv` reads tests in
                     tables, and `templates` renders prompts
    formats    the reader of each format

All modules are pure: they get the content of files from their caller, and nothing is written before a whole import is
understood. `docs/evals/importing-evals.md` has the mapping of each format.
"""
