# What conda runs when an environment is activated.
for _script in /opt/conda/etc/conda/activate.d/*.sh; do . "$_script"; done
unset _script
