#!/usr/bin/env bash
# Builds the book: docs/build.sh CTK. Writes the pages of all keys by the given program, then docs/book/. Needs mdbook on the path
# (cargo install mdbook --locked); installs nothing. Git ignores what it writes.
set -euo pipefail
docs=$(cd "$(dirname "$0")" && pwd)
ctk=${1:?docs/build.sh CTK}
command -v mdbook >/dev/null || { echo "docs/build.sh needs mdbook: cargo install mdbook --locked" >&2; exit 1; }

# A page of keys: a heading a section, an entry a key. What the program prints is a line of the key and its default, then its meaning.
page() {
    echo "# Every key: $2"
    echo
    echo "The program prints the same: \`ctk config keys $1\`, or of one section \`ctk config keys $1 train\`."
    "$ctk" config keys "$1" | awk '
        function plain(text) { gsub(/</, "\\&lt;", text); gsub(/\[/, "\\[", text); gsub(/\*/, "\\*", text); gsub(/_/, "\\_", text); return text }
        function meaning(text,    parts, at, out) {
            at = split(text, parts, "`"); out = ""
            for (i = 1; i <= at; i++) out = out (i > 1 ? "`" : "") (i % 2 ? plain(parts[i]) : parts[i])
            return out
        }
        /^[^ ]/ {
            colon = index($0, ": "); key = substr($0, 1, colon - 1); section = key
            sub(/\.[^.]*$/, "", section)
            if (!(section in text)) order[++sections] = section
            text[section] = text[section] "- **`" key "`**: " plain(substr($0, colon + 2)) "  \n"
        }
        /^ / { sub(/^ +/, ""); text[section] = text[section] "  " meaning($0) "\n" }
        END { for (at = 1; at <= sections; at++) print "\n## `[" order[at] "]`\n\n" text[order[at]] }
    '
}

page vision images >"$docs/src/keys-vision.md"
page word2vec words >"$docs/src/keys-word2vec.md"
page sentences sentences >"$docs/src/keys-sentences.md"
page image-text "images and texts" >"$docs/src/keys-image-text.md"
mdbook build "$docs"
