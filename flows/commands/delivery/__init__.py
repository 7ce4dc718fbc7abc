"""Commands that hand a merged model over: serve-model, export."""
