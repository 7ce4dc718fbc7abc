"""Delivery of a merged model to other programs: promotion, serving, export, upload.

promotion.py         makes a merged model the champion if it is shown to be better
delivered_model.py   finds the model, its GGUF files and its prompt format
engines.py           inference engines that serve a model: one class per engine, and the table
openai_gateway.py    what the engines' OpenAI-compatible endpoints lack, added to requests
stop_words.py        cuts stop words off answers, for engines that return them
bundle.py            one folder, archive or repository that other programs load
hub_upload.py        uploads a bundle to the Hugging Face hub
ollama.py            creates the model in Ollama
tracked_results.py   adds the verdict to the experiment trackers of a training
"""
