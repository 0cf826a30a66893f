#compdef _walt walt
# Completion of 'walt' for zsh. Load it with:  source <(walt advanced dump-zsh-autocomplete)
# or save it as _walt in a directory of $fpath.
_walt() {
    local line
    local -a parts lines closed closed_shown open open_shown
    local -i width=0 described=0
    lines=("${(@f)$(command walt advanced complete zsh "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    # Each line: "open" if no space follows, the value, what is shown of it, a description.
    for line in $lines; do
        parts=("${(@ps:\t:)line}")
        (( ${#parts[3]} > width )) && width=${#parts[3]}
        [[ -n $parts[4] ]] && described=1
    done
    for line in $lines; do
        parts=("${(@ps:\t:)line}")
        [[ -n $parts[2] ]] || continue
        local shown=$parts[3]
        [[ -n $parts[4] ]] && shown="${(r:$width:)parts[3]}  -- $parts[4]"
        shown=${shown[1,COLUMNS-1]}
        if [[ $parts[1] == open ]]; then
            open+=("$parts[2]") open_shown+=("$shown")
        else
            closed+=("$parts[2]") closed_shown+=("$shown")
        fi
    done
    local -a how
    (( described )) && how=(-l)
    (( $#closed )) && compadd $how -V walt -d closed_shown -a closed
    (( $#open )) && compadd $how -V walt -S '' -d open_shown -a open
    (( $#closed + $#open ))
}
if [[ "$funcstack[1]" == _walt ]]; then
    _walt "$@"
else
    # Without the completion system, a shell of a user gets it; a script has no use for it.
    if [[ -o interactive ]] && (( ! $+functions[compdef] )); then
        autoload -Uz compinit && compinit -i
    fi
    (( $+functions[compdef] )) && compdef _walt walt
    true
fi
