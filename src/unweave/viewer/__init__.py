"""A page to play with a run in the browser: `session` answers, `app` lays out, `web` guards, `server` listens."""
