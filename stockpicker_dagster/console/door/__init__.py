"""Who may come in: sessions in browsers, tokens of scripts, the first person, and what every request has to prove."""
