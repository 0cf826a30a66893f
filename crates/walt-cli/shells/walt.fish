# Completion of 'walt' for fish. Load it with:  walt advanced dump-fish-autocomplete | source
# or save it as ~/.config/fish/completions/walt.fish
function __walt_complete
    command walt advanced complete fish (commandline -cp | string collect) 2>/dev/null
end
complete -c walt -f -k -a '(__walt_complete)'
