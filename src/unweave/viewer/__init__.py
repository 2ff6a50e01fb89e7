"""A page that explores a run in the browser: `session` computes, `app` is the layout, `web` the security, `server`
listens."""
