FROM pc-x86-64-mini
RUN rm /etc/profile && mkdir -p /srv/d && echo x >/srv/d/f && chmod 600 /srv/d/f && ln -s f /srv/d/l && mkfifo /srv/p
