FROM scratch
COPY ../file tree/../file /d/
