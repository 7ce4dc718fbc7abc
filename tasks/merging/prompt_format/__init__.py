"""The training's prompt format, in the files that other programs read.

turn_layout.py    the text around the messages of a conversation, taken from a prompt template
chat_template.py  the Jinja chat template of the merged model
modelfile.py      the Modelfile of a GGUF file, for Ollama
shipped.py        writes them, with stop words and infilling tokens, to the model's folder
"""
