# Completion of 'walt' for bash. Load it with:  source <(walt advanced dump-bash-autocomplete)
_walt() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("$line")
    done < <(command walt advanced complete bash "$COMP_WORDBREAKS" "${COMP_LINE:0:$COMP_POINT}" 2>/dev/null)
}
# Candidates bring their own space. Versions before 4.4 do not know nosort.
complete -o nospace -o nosort -F _walt walt 2>/dev/null || complete -o nospace -F _walt walt
