//! Tokens to declarations and statements. Scopes are resolved here: a register or variable of an inner block hides
//! an outer one, and nothing undeclared passes.

use std::collections::HashMap;

use super::ast::{Ast, Func, Var};
use super::error::LoadErrorKind as Kind;
use super::lex::{Tok, Token};
use super::types::{Space, Ty};

/// Where and why parsing stopped.
pub(crate) struct Stop {
    pub kernel: Option<String>,
    pub line: u32,
    pub kind: Kind,
}

pub(super) type Res<T> = Result<T, Kind>;

/// Bytes that a variable may have.
const MAX_VARIABLE: u64 = 1 << 40;

/// Special registers that can be read, with the type of each.
pub(crate) fn special(name: &str) -> Option<Ty> {
    Some(match name {
        "%tid.x" | "%tid.y" | "%tid.z" | "%ntid.x" | "%ntid.y" | "%ntid.z" | "%ctaid.x" | "%ctaid.y"
        | "%ctaid.z" | "%nctaid.x" | "%nctaid.y" | "%nctaid.z" | "%laneid" | "%warpid" | "%nwarpid"
        | "%smid" | "%nsmid" | "%lanemask_eq" | "%lanemask_lt" | "%lanemask_le" | "%lanemask_gt"
        | "%lanemask_ge" | "%clock" | "%clock_hi" | "%dynamic_smem_size" | "%total_smem_size" => Ty::U32,
        "%gridid" | "%clock64" => Ty::U64,
        _ => return None,
    })
}

pub(super) struct Parser<'t, 'a> {
    pub(super) toks: &'t [Token<'a>],
    pub(super) at: usize,
    ast: Ast<'a>,
    pub(super) module_vars: HashMap<&'a str, usize>,
    function: Option<String>,
}

/// Parses a module.
pub(crate) fn parse<'a>(toks: &[Token<'a>]) -> Result<Ast<'a>, Stop> {
    let mut p = Parser { toks, at: 0, ast: Ast::default(), module_vars: HashMap::new(), function: None };
    match p.module() {
        Ok(()) => Ok(p.ast),
        Err(kind) => {
            // The token before the cursor is the one that was looked at.
            let line = p.toks[p.at.saturating_sub(1).min(p.toks.len() - 1)].line;
            Err(Stop { kernel: p.function, line, kind })
        }
    }
}

impl<'a> Parser<'_, 'a> {
    pub(super) fn peek(&self) -> Tok<'a> {
        self.toks[self.at.min(self.toks.len() - 1)].tok
    }

    pub(super) fn line(&self) -> u32 {
        self.toks[self.at.min(self.toks.len() - 1)].line
    }

    pub(super) fn next(&mut self) -> Tok<'a> {
        let t = self.peek();
        self.at += 1;
        t
    }

    pub(super) fn wrong<T>(&mut self, expected: &'static str) -> Res<T> {
        let found = self.next().describe();
        Err(Kind::Syntax { expected, found })
    }

    pub(super) fn eat(&mut self, c: u8) -> bool {
        let hit = self.peek() == Tok::Sym(c);
        self.at += usize::from(hit);
        hit
    }

    pub(super) fn expect(&mut self, c: u8, expected: &'static str) -> Res<()> {
        if self.eat(c) { Ok(()) } else { self.wrong(expected) }
    }

    pub(super) fn eat_word(&mut self, w: &str) -> bool {
        let hit = self.peek() == Tok::Word(w);
        self.at += usize::from(hit);
        hit
    }

    pub(super) fn word(&mut self, expected: &'static str) -> Res<&'a str> {
        match self.peek() {
            Tok::Word(w) => {
                self.at += 1;
                Ok(w)
            }
            _ => self.wrong(expected),
        }
    }

    pub(super) fn int(&mut self, expected: &'static str) -> Res<u64> {
        match self.peek() {
            Tok::Int(v) => {
                self.at += 1;
                Ok(v)
            }
            _ => self.wrong(expected),
        }
    }

    pub(super) fn small(&mut self, expected: &'static str) -> Res<u32> {
        u32::try_from(self.int(expected)?).map_err(|_| Kind::Range { limit: "0..=4294967295" })
    }

    fn module(&mut self) -> Res<()> {
        if !self.eat_word(".version") {
            return self.wrong("`.version`");
        }
        // `8.0` is lexed as a decimal fraction.
        let version = match self.next() {
            Tok::F64(bits) => f64::from_bits(bits),
            other => return Err(Kind::Syntax { expected: "a version", found: other.describe() }),
        };
        let tenths = (version * 10.0).round();
        if !(70.0..=95.0).contains(&tenths) {
            let (major, minor) = (version.trunc() as u32, (tenths - version.trunc() * 10.0).max(0.0) as u32);
            return Err(Kind::Version { major, minor });
        }
        self.ast.version = (tenths as u32 / 10, tenths as u32 % 10);
        if !self.eat_word(".target") {
            return self.wrong("`.target`");
        }
        let name = self.word("a target")?;
        let digits = name.strip_prefix("sm_").unwrap_or("").trim_end_matches(['a', 'f']);
        // PTX for older targets runs on newer devices; run-time compilers still default to sm_52.
        const KNOWN: [u32; 22] =
            [50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 88, 89, 90, 100, 101, 103, 107, 110, 120, 121];
        self.ast.target = match digits.parse::<u32>() {
            Ok(t) if KNOWN.contains(&t) => t,
            _ => return Err(Kind::Target { name: name.into() }),
        };
        while self.eat(b',') {
            let option = self.word("a target option")?;
            if option != "debug" {
                return Err(Kind::Target { name: option.into() });
            }
        }
        while self.peek() != Tok::End {
            self.item()?;
        }
        Ok(())
    }

    fn item(&mut self) -> Res<()> {
        self.function = None;
        let w = self.word("a directive")?;
        match w {
            ".address_size" => match self.int("64")? {
                64 => Ok(()),
                _ => Err(Kind::Unsupported { what: "an address size other than 64" }),
            },
            ".file" => {
                let n = self.small("a file number")?;
                match self.next() {
                    Tok::Str(s) => self.ast.files.push((n, s)),
                    t => return Err(Kind::Syntax { expected: "a file name", found: t.describe() }),
                }
                while self.eat(b',') {
                    self.int("a number")?;
                }
                Ok(())
            }
            ".loc" => self.loc().map(|_| ()),
            ".pragma" => self.pragma(),
            ".section" => {
                self.word("a section name")?;
                self.expect(b'{', "`{`")?;
                let mut depth = 1;
                while depth > 0 {
                    match self.next() {
                        Tok::Sym(b'{') => depth += 1,
                        Tok::Sym(b'}') => depth -= 1,
                        Tok::End => return self.wrong("`}`"),
                        _ => {}
                    }
                }
                Ok(())
            }
            ".visible" | ".extern" | ".weak" | ".common" => match self.peek() {
                Tok::Word(".entry" | ".func") => {
                    let entry = self.next() == Tok::Word(".entry");
                    self.function_item(entry)
                }
                Tok::Word(space @ (".global" | ".const" | ".shared")) => {
                    self.at += 1;
                    self.module_var(space)
                }
                _ => self.wrong("`.entry`, `.func` or a variable"),
            },
            ".entry" => self.function_item(true),
            ".func" => self.function_item(false),
            ".global" | ".const" | ".shared" => self.module_var(w),
            _ => Err(Kind::Directive { name: w.into() }),
        }
    }

    pub(super) fn pragma(&mut self) -> Res<()> {
        loop {
            match self.next() {
                Tok::Str(_) => {}
                t => return Err(Kind::Syntax { expected: "a string", found: t.describe() }),
            }
            if !self.eat(b',') {
                return self.expect(b';', "`;`");
            }
        }
    }

    fn module_var(&mut self, directive: &str) -> Res<()> {
        let space = match directive {
            ".global" => Space::Global,
            ".const" => Space::Const,
            _ => Space::Shared,
        };
        for var in self.variables(space)? {
            if let Some(&old) = self.module_vars.get(var.name) {
                // An extern declaration may be repeated.
                if self.ast.vars[old].unsized_array && var.unsized_array {
                    continue;
                }
                return Err(Kind::Redeclared { name: var.name.into() });
            }
            self.module_vars.insert(var.name, self.ast.vars.len());
            self.ast.vars.push(var);
        }
        Ok(())
    }

    /// The rest of a variable declaration after its space: type, names, sizes, initial values, `;`.
    pub(super) fn variables(&mut self, space: Space) -> Res<Vec<Var<'a>>> {
        let (align, ty, lanes) = self.variable_type()?;
        let mut vars = Vec::new();
        loop {
            let mut var = self.declarator(space, align, ty, lanes)?;
            if self.eat(b'=') {
                if !matches!(space, Space::Global | Space::Const) {
                    return Err(Kind::Unsupported { what: "an initial value in this space" });
                }
                self.initial(ty, &mut var.init)?;
                if var.init.len() as u64 > var.bytes {
                    return Err(Kind::TooLarge { what: "the initial value", limit: var.bytes });
                }
            }
            vars.push(var);
            if !self.eat(b',') {
                break;
            }
        }
        self.expect(b';', "`;`")?;
        Ok(vars)
    }

    fn variable_type(&mut self) -> Res<(Option<u32>, Ty, u32)> {
        let (mut align, mut lanes) = (None, 1);
        loop {
            let w = self.word("a type")?;
            match w {
                ".align" => {
                    let a = self.small("an alignment")?;
                    if !a.is_power_of_two() || a > 1 << 16 {
                        return Err(Kind::Range { limit: "a power of two up to 65536" });
                    }
                    align = Some(a);
                }
                ".v2" => lanes = 2,
                ".v4" => lanes = 4,
                ".attribute" | ".managed" => {
                    return Err(Kind::Unsupported { what: "a variable with attributes" });
                }
                ".ptr" => {
                    // Advice about a pointer parameter: space and alignment of what it points to.
                    return Err(Kind::Syntax { expected: "a type before `.ptr`", found: w.into() });
                }
                _ => match w.strip_prefix('.').and_then(Ty::parse) {
                    Some(Ty::Pred) | None => {
                        return Err(Kind::Syntax { expected: "a type", found: w.into() });
                    }
                    Some(ty) => return Ok((align, ty, lanes)),
                },
            }
        }
    }

    fn declarator(&mut self, space: Space, align: Option<u32>, ty: Ty, lanes: u32) -> Res<Var<'a>> {
        let name = self.word("a name")?;
        let element = u64::from(ty.bytes() * lanes);
        let (mut bytes, mut unsized_array) = (element, false);
        while self.eat(b'[') {
            if self.eat(b']') {
                unsized_array = true;
                bytes = 0;
                continue;
            }
            let n = self.int("a size")?;
            self.expect(b']', "`]`")?;
            bytes = bytes
                .checked_mul(n)
                .filter(|b| *b <= MAX_VARIABLE)
                .ok_or(Kind::TooLarge { what: "a variable", limit: MAX_VARIABLE })?;
        }
        Ok(Var {
            name,
            space,
            align: align.unwrap_or(element as u32),
            bytes,
            unsized_array,
            init: Vec::new(),
        })
    }

    fn initial(&mut self, ty: Ty, out: &mut Vec<u8>) -> Res<()> {
        let size = ty.bytes() as usize;
        let mut depth = 0u32;
        loop {
            if self.eat(b'{') {
                depth += 1;
                continue;
            }
            let negative = self.eat(b'-');
            match self.next() {
                Tok::Int(v) => {
                    let v = if negative { v.wrapping_neg() } else { v };
                    out.extend_from_slice(&v.to_le_bytes()[..size]);
                }
                Tok::F32(b) if ty.bytes() == 4 && !negative => out.extend_from_slice(&b.to_le_bytes()),
                Tok::F64(b) if ty.bytes() == 8 && !negative => out.extend_from_slice(&b.to_le_bytes()),
                Tok::Word(_) => return Err(Kind::Unsupported { what: "an address as an initial value" }),
                t => return Err(Kind::Syntax { expected: "an initial value", found: t.describe() }),
            }
            while depth > 0 && self.eat(b'}') {
                depth -= 1;
            }
            if depth == 0 {
                return Ok(());
            }
            self.expect(b',', "`,`")?;
        }
    }

    fn parameters(&mut self) -> Res<Vec<Var<'a>>> {
        let mut vars = Vec::new();
        self.expect(b'(', "`(`")?;
        if self.eat(b')') {
            return Ok(vars);
        }
        loop {
            match self.word("`.param`")? {
                ".param" => {}
                ".reg" => return Err(Kind::Unsupported { what: "a parameter in a register" }),
                w => return Err(Kind::Syntax { expected: "`.param`", found: w.into() }),
            }
            let (align, ty, lanes) = self.variable_type()?;
            if self.eat_word(".ptr") {
                for space in [".global", ".shared", ".local", ".const"] {
                    self.eat_word(space);
                }
                if self.eat_word(".align") {
                    self.int("an alignment")?;
                }
            }
            vars.push(self.declarator(Space::Param, align, ty, lanes)?);
            if self.eat(b')') {
                return Ok(vars);
            }
            self.expect(b',', "`,`")?;
        }
    }

    fn function_item(&mut self, entry: bool) -> Res<()> {
        let line = self.line();
        let mut vars = if !entry && self.peek() == Tok::Sym(b'(') { self.parameters()? } else { Vec::new() };
        let rets = vars.len();
        let name = self.word("a function name")?;
        self.function = Some(name.into());
        if self.peek() == Tok::Sym(b'(') {
            vars.extend(self.parameters()?);
        }
        let params = vars.len() - rets;
        let mut f = Func {
            name,
            entry,
            line,
            defined: false,
            rets,
            params,
            vars,
            regs: Vec::new(),
            scopes: vec![0],
            body: Vec::new(),
            labels: HashMap::new(),
            tables: Vec::new(),
            max_threads: None,
            exact_threads: false,
        };
        loop {
            match self.peek() {
                Tok::Word(w @ (".maxntid" | ".reqntid")) => {
                    self.at += 1;
                    let mut n = [1; 3];
                    for (i, n) in n.iter_mut().enumerate() {
                        if i > 0 && !self.eat(b',') {
                            break;
                        }
                        *n = self.small("a thread count")?;
                    }
                    f.max_threads = Some(n);
                    f.exact_threads = w == ".reqntid";
                }
                Tok::Word(".minnctapersm" | ".maxnreg" | ".maxnctapersm") => {
                    self.at += 1;
                    self.int("a count")?;
                }
                Tok::Word(".noreturn") => self.at += 1,
                Tok::Word(".pragma") => {
                    self.at += 1;
                    self.pragma()?;
                }
                Tok::Sym(b';') => {
                    self.at += 1;
                    break;
                }
                Tok::Sym(b'{') => {
                    self.at += 1;
                    f.defined = true;
                    self.body(&mut f)?;
                    break;
                }
                Tok::Word(w) => {
                    self.at += 1;
                    return Err(Kind::Directive { name: w.into() });
                }
                _ => return self.wrong("a function body"),
            }
        }
        match self.ast.by_name.get(f.name) {
            Some(at) => {
                let old = &mut self.ast.functions[*at];
                if old.defined && f.defined {
                    return Err(Kind::Redeclared { name: f.name.into() });
                }
                if f.defined {
                    *old = f;
                }
            }
            None => {
                self.ast.by_name.insert(f.name, self.ast.functions.len());
                self.ast.functions.push(f);
            }
        }
        Ok(())
    }

    pub(super) fn loc(&mut self) -> Res<(u32, u32)> {
        let file = self.small("a file number")?;
        let line = self.small("a line number")?;
        self.int("a column")?;
        while self.eat(b',') {
            match self.word("`function_name` or `inlined_at`")? {
                "function_name" => {
                    self.word("a label")?;
                    if self.eat(b'+') {
                        self.int("an offset")?;
                    }
                }
                "inlined_at" => {
                    for _ in 0..3 {
                        self.int("a number")?;
                    }
                }
                w => {
                    return Err(Kind::Syntax {
                        expected: "`function_name` or `inlined_at`",
                        found: w.into(),
                    });
                }
            }
        }
        Ok((file, line))
    }
}

#[cfg(test)]
mod tests {
    use super::super::ast::{Arg, VarRef};
    use super::super::lex::lex;
    use super::*;

    fn parsed(body: &str) -> Result<Func<'_>, Kind> {
        let text = Box::leak(
            format!(".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p)\n{{\n{body}\n}}")
                .into_boxed_str(),
        );
        let toks = lex(text).map_err(|e| e.1)?;
        parse(&toks).map(|mut a| a.functions.remove(0)).map_err(|e| e.kind)
    }

    #[test]
    fn inner_scopes_hide_outer_registers() {
        let f =
            parsed(".reg .b32 %r<3>;\n mov.u32 %r1, 1; { .reg .b64 %r<2>; mov.u64 %r1, 2; } mov.u32 %r1, 3;")
                .map_err(|k| k.to_string())
                .unwrap();
        let ids: Vec<_> = f.body.iter().map(|s| s.args[0].clone()).collect();
        assert_eq!(ids, [Arg::Reg(0), Arg::Reg(1), Arg::Reg(0)]);
        assert_eq!((f.regs[0].ty, f.regs[1].ty), (Ty::B32, Ty::B64));
    }

    #[test]
    fn undeclared_registers_are_refused() {
        assert!(
            matches!(parsed(".reg .b32 %r<3>; mov.u32 %r3, 1;"), Err(Kind::Register { name }) if name == "%r3")
        );
        assert!(matches!(parsed("mov.u32 %x, 1;"), Err(Kind::Register { .. })));
        assert!(matches!(parsed("@%p1 ret;"), Err(Kind::Register { .. })));
    }

    #[test]
    fn operands_of_every_shape() {
        let f = parsed(
            ".reg .b32 %r<9>; .reg .b64 %d<2>; .reg .pred %p<3>; .shared .b32 s[4];\n\
             ld.x {%r1, _}, [%d1+-8]; a %p1|%p2, !%p1; b s+4; c [s+4], (%r1, 0f3F800000), -1, %tid.x, $L;",
        )
        .map_err(|k| k.to_string())
        .unwrap();
        assert_eq!(f.body[0].args[0], Arg::Vec(vec![Arg::Reg(0), Arg::Sink]));
        assert_eq!(f.body[0].args[1], Arg::Addr(Box::new(Arg::Reg(1)), -8));
        assert_eq!(f.body[1].args[0], Arg::Pair(Box::new(Arg::Reg(2)), Box::new(Arg::Reg(3))));
        assert_eq!(f.body[1].args[1], Arg::Not(2));
        assert_eq!(f.body[2].args[0], Arg::Var(VarRef::Function(1), 4));
        assert_eq!(f.body[3].args[0], Arg::Addr(Box::new(Arg::Var(VarRef::Function(1), 0)), 4));
        assert_eq!(f.body[3].args[2..], [Arg::Int(u64::MAX), Arg::Special("%tid.x"), Arg::Name("$L")]);
    }

    #[test]
    fn versions_and_targets_outside_the_known_ones_are_refused() {
        for (text, part) in [
            (".version 6.5\n.target sm_80", "6.5"),
            (".version 9.9\n.target sm_80", "9.9"),
            (".version 8.0\n.target sm_35", "sm_35"),
            (".version 8.0\n.target sm_80\n.bogus", ".bogus"),
            ("hello", "hello"),
        ] {
            let toks = lex(text).unwrap();
            let e = parse(&toks).err().map(|e| e.kind).expect("must be refused").to_string();
            assert!(e.contains(part), "{e}");
        }
    }
}
