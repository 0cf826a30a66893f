FROM pc-x86-64-mini
RUN echo x >/srv-f && ln /srv-f /srv-g && touch -d @1000000000 /srv-f
