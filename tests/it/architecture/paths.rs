//! Finds the paths in a source file, reading it as text: comments and literals fall away first.

/// Every path in a file with its line: `crate::…` for ours (`self` and `super` are followed), as
/// written for all others.
pub fn paths<'a>(place: &'a str, tokens: &[(&'a str, usize)]) -> Vec<(Vec<&'a str>, usize)> {
    let is_root = matches!(place, "lib" | "main");
    let mut within: Vec<&str> = if is_root {
        vec![]
    } else {
        place.split("::").collect()
    };
    let mut found = Vec::new();
    // For each open brace: the prefix that its `use` tree hangs on, and whether it opened a module.
    let mut braces: Vec<(Vec<&str>, bool)> = Vec::new();
    let (mut path, mut line, mut in_use): (Vec<&str>, usize, bool) = (Vec::new(), 0, false);
    for i in 0..=tokens.len() {
        let back = |n: usize| i.checked_sub(n).map_or("", |at| tokens[at].0);
        let (text, at) = tokens.get(i).copied().unwrap_or(("", 0));
        let goes_on = back(1) == "::" && !path.is_empty();
        if text == "::" || (goes_on && (is_word(text) || text == "*")) {
            path.extend((text != "::").then_some(text));
            continue;
        }
        if !goes_on && (path.len() > 1 || in_use) && !path.is_empty() {
            found.push((resolve(&within, &path), line));
        }
        match text {
            "{" => {
                let opens_module = back(2) == "mod";
                if opens_module {
                    within.push(back(1));
                }
                in_use &= goes_on || back(1) == "use";
                braces.push((if goes_on { path } else { Vec::new() }, opens_module));
            }
            "}" => {
                if let Some((_, true)) = braces.pop() {
                    within.pop();
                }
            }
            ";" => in_use = false,
            "use" => in_use = true,
            "crate" if back(1) == "extern" => in_use = true,
            "async" | "await" => found.push((vec![text], at)),
            _ => {}
        }
        let starts = is_word(text) && text != "use" && back(1) != "extern";
        let renames = in_use && (text == "as" || back(1) == "as");
        path = Vec::new();
        if starts && !renames {
            path.extend(braces.last().iter().flat_map(|(prefix, _)| prefix));
            path.push(text);
            line = at;
        }
    }
    found
}

fn resolve<'a>(within: &[&'a str], path: &[&'a str]) -> Vec<&'a str> {
    let mut full = match path[0] {
        "self" | "super" => within.to_vec(),
        "crate" | "assent" => vec![],
        _ => return path.to_vec(),
    };
    for word in path {
        match *word {
            "crate" | "assent" | "self" => {}
            "super" => drop(full.pop()),
            word => full.push(word),
        }
    }
    full.insert(0, "crate");
    full
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Words, `::` and single signs, each with its line; comments and literals are left out.
pub fn tokens(source: &str) -> Vec<(&str, usize)> {
    let (mut found, mut rest, mut line) = (Vec::new(), source, 1);
    while let Some(first) = rest.chars().next() {
        let skipped = comment_or_literal(rest);
        let word = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let length = match skipped {
            0 if rest.starts_with("::") => 2,
            0 => word.max(first.len_utf8()),
            _ => skipped,
        };
        let (text, after) = rest.split_at(length);
        if skipped == 0 && !first.is_whitespace() {
            found.push((text, line));
        }
        line += text.matches('\n').count();
        rest = after;
    }
    found
}

/// How long the comment, string, character or lifetime's tick is that the text begins with.
fn comment_or_literal(text: &str) -> usize {
    let until = |from: usize, end: &str| {
        text[from..]
            .find(end)
            .map_or(text.len(), |found| from + found + end.len())
    };
    if let Some(after) = text.trim_start_matches(['b', 'c']).strip_prefix('r') {
        let quote = after.trim_start_matches('#');
        if quote.starts_with('"') {
            let end = format!("\"{}", &after[..after.len() - quote.len()]);
            return until(text.len() - quote.len() + 1, &end);
        }
    }
    match text.as_bytes() {
        [b'/', b'/', ..] => until(2, "\n"),
        [b'/', b'*', ..] => until(2, "*/"),
        [b'\'', b'\\', _, ..] => until(3, "'"),
        [b'\'', ..] => text
            .char_indices()
            .nth(2)
            .map_or(1, |(at, c)| if c == '\'' { at + 1 } else { 1 }),
        [b'"', ..] => {
            let mut escaped = false;
            let ends = |c: char| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            };
            text[1..].find(ends).map_or(text.len(), |end| end + 2)
        }
        _ => 0,
    }
}
