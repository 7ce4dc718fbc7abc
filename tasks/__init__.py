"""The stages of the pipeline, one package each, their order, and the code that they share.

Imports go one way: flows -> tasks.pipeline -> tasks.<stage> -> tasks.core. Stage packages never
import each other; what two of them share is a schema or a function of `core`.

    pipeline.py     PIPELINE: the stages in order
    core/           settings, cache, models, rows, text, languages, sandbox; imports no stage
    base/           base       base model and tokenizer -> digested folders
    ingestion/      ingest     files, packages -> rows
    filtering/      filter     rows -> kept and rejected, with every reason
    prompting/      prompt     kept rows -> prompt + completion, split by project
    tokenization/   tokenize   text -> token ids, label mask, packing plan
    training/       train      4-bit LoRA on packed windows -> adapter
    evaluation/     evaluate   base and tuned model on the same data -> metrics, gate, report
    merging/        merge      adapter into a 16-bit base, checked
"""
