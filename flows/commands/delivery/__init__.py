"""Commands that deliver a merged model: serve-model, export."""
