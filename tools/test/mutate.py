# SPDX-License-Identifier: GPL-2.0
"""Make mutants of C code in kernel style, all in one copy of it.

Each mutant replaces expressions or statements of a function by others. The copy
has them all: MUTANT(n) is true if number n is wanted.
"""
import re

TOKEN = re.compile(r'''\w+|->|[+]{2}|--|<<=|>>=|<<|>>|[<>=!]=|&&|[|]{2}
                   |[-+*/%&|^]=|"(?:\\.|[^"])*"|'(?:\\.|[^'])*'|\S''', re.X)
COMMENT = re.compile(r'/[*].*?[*]/|//[^\n]*|^[ \t]*#(?:[^\n]|(?<=\\)\n)*',
                     re.S | re.M)
FUNCTION = re.compile(r'^[a-z][^;{}]*?\b(\w+)[(][^;{}]*[)]\n[{]\n.*?^[}]$',
                      re.S | re.M)
TYPE = re.compile(r'(?:const |static |unsigned |struct |enum |__)*'
                  r'(?:\w+ [* ]*(?:const )?\w+( = |,|;|\[)|unsigned )')
SWAP = {'<': '<=', '<=': '<', '>': '>=', '>=': '>', 'true': 'false',
        'false': 'true', 'min': 'max', 'min_t': 'max_t'}
# a call, and a weaker one
WEAKER = [(re.compile(p), r) for p, r in (
    (r'\bsmp_load_acquire\(', 'relaxed_load('),
    (r'\bsmp_store_release\(', 'relaxed_store('),
    (r'\b(atomic64_read)_acquire\(', r'\1('),
    (r'\b(xchg|cmpxchg|atomic64_fetch_add|atomic64_fetch_inc|atomic64_inc|'
     r'atomic_inc|atomic_dec|atomic_inc_return|atomic64_try_cmpxchg|'
     r'test_and_set_bit)\(', r'plain_\1('),
    (r'__ATOMIC_(ACQUIRE|RELEASE|SEQ_CST)\b', '__ATOMIC_RELAXED'))]
LOCKS = {'spin_lock': 'spin_unlock', 'mutex_lock': 'mutex_unlock',
         'spin_lock_irqsave': 'spin_unlock_irqrestore',
         'rcu_read_lock': 'rcu_read_unlock',
         'preempt_disable': 'preempt_enable',
         'doorbell_binding_lock': 'doorbell_binding_unlock'}
# statements without which a test need not fail: checks, and pauses
IDLE = ('lockdep_assert_held', 'cond_resched')


class Site:
    """Text from start to end, a statement or an expression."""
    def __init__(self, start, end, statement):
        self.start, self.end, self.statement = start, end, statement


class Mutant:
    """The text of some sites, each replaced by another one."""
    def __init__(self, where, what, changes):
        self.where, self.what, self.changes = where, what, changes

    @property
    def name(self):
        return f'{self.where}: {self.what}'


def squeeze(text):
    return re.sub(r'\s+', ' ', text).strip()


class Function:
    def __init__(self, where, text, start, end):
        self.where, self.text, self.mutants = where, text, []
        self.tokens = [(m[0], m.start(), m.end())
                       for m in TOKEN.finditer(text, start, end)]
        words = [t[0] for t in self.tokens]
        self.words = words
        self.labels = [(words[i], i) for i in range(1, len(words) - 1)
                       if words[i + 1] == ':' and words[i - 1] in ';{}'
                       and words[i] != 'default']
        # statements that swaps() and locks() look at: site, text
        self.simple = []
        # where one statement without braces depends on a condition
        self.bodies = set()
        self.statement(words.index('{'))
        self.locks()
        self.swaps()

    def source(self, i, end):
        """The text of the tokens from i up to, not including, end."""
        return self.text[self.tokens[i][1]:self.tokens[end - 1][2]]

    def closing(self, i):
        depth = 0
        while True:
            depth += (self.words[i] in '([{') - (self.words[i] in ')]}')
            if not depth:
                return i
            i += 1

    def until(self, i, word):
        """The next word that is not in brackets."""
        while self.words[i] != word:
            i = self.closing(i) + 1 if self.words[i] in '([{' else i + 1
        return i

    # -- statements ----------------------------------------------------------
    def statement(self, i):
        """Find the sites of a statement; return what follows it."""
        word = self.words[i]
        if word == '{':
            i += 1
            while self.words[i] != '}':
                i = self.statement(i)
            return i + 1
        if word in ('if', 'while', 'switch'):
            end = self.closing(i + 1)
            if word != 'switch':
                self.condition(i + 2, end, word == 'while')
            i = self.body(end + 1)
            return self.body(i + 1) \
                if word == 'if' and self.words[i] == 'else' else i
        if word == 'for':
            first = self.until(i + 2, ';') + 1
            self.condition(first, self.until(first, ';'), True)
            return self.body(self.closing(i + 1) + 1)
        if word == 'do':
            i = self.statement(i + 1)
            end = self.closing(i + 1)
            self.condition(i + 2, end, True)
            return end + 2
        if word in ('case', 'default') or self.words[i + 1] == ':':
            return self.until(i, ':') + 1
        if word != 'return' and self.words[i + 1] == '(':
            end = self.closing(i + 1)
            if re.match(r'\w|[{]', self.words[end + 1]):    # a loop's macro
                return self.body(end + 1)
        end = self.until(i, ';')
        self.plain(i, end)
        return end + 1

    def body(self, i):
        self.bodies.add(i)
        return self.statement(i)

    def plain(self, i, end):
        """A statement that has no other statement in it."""
        word, text = self.words[i], self.source(i, end)
        if word in ('break', 'continue') or end == i:
            return
        if word == 'goto':
            site = self.site(i, end + 1, True)
            at = dict(self.labels).get(self.words[i + 1], 0)
            for label, other in self.labels:
                if other > at:
                    self.add(site, f'goto {label}')
        elif word == 'return':
            if end > i + 1:
                self.expression(i + 1, end)
        elif TYPE.match(squeeze(text) + ';'):
            while i < end:
                comma = min([k for k in range(i, end)
                             if self.words[k] == ',' and
                             self.until(i, ';') > k and self.top(i, k)] or
                            [end])
                equal = [k for k in range(i, comma) if self.words[k] == '='
                         and self.top(i, k)]
                if equal and self.words[equal[0] + 1] != '{':
                    self.expression(equal[0] + 1, comma)
                i = comma + 1
        elif not any(idle in text for idle in IDLE):
            site = self.site(i, end + 1, True)
            self.simple.append((site, text, i))
            if word not in LOCKS and not re.match(r'\w+ = ', text):
                self.add(site, '')
            for new in self.changed(i, end):
                self.add(site, new)

    def top(self, i, k):
        """Is token k outside of the brackets that open from i on?"""
        inside = self.words[i:k]
        return all(inside.count(a) == inside.count(b) for a, b in
                   ('()', '[]', '{}'))

    def locks(self):
        """Leave out a lock with all of its unlocks."""
        for n, (site, text, i) in enumerate(self.simple):
            undo = LOCKS.get(self.words[i])
            if not undo:
                continue
            first = text[len(self.words[i]):].split(',')[0].rstrip(')')
            changes = [(site, '')]
            for other, text2, _ in self.simple[n + 1:]:
                if text2 == text:
                    break
                if text2.startswith(undo + first):
                    changes.append((other, ''))
            self.mutants.append(Mutant(
                self.where, f'no {squeeze(text)}, no {undo}', changes))

    def swaps(self):
        """Swap two stores that follow each other."""
        shared = re.compile(r'_ONCE|release|acquire|rcu_assign|atomic|'
                            r'complete|xchg')
        for (site, text, i), (site2, text2, i2) in zip(self.simple,
                                                       self.simple[1:]):
            if i2 == self.until(i, ';') + 1 and i not in self.bodies and (
                    shared.search(text) or shared.search(text2)):
                self.mutants.append(Mutant(
                    self.where, f'{squeeze(text2)} before {squeeze(text)}',
                    [(site, text2), (site2, text)]))

    # -- expressions ---------------------------------------------------------
    def site(self, i, end, statement):
        return Site(self.tokens[i][1], self.tokens[end - 1][2], statement)

    def add(self, site, new):
        old = squeeze(self.text[site.start:site.end].rstrip(';'))
        self.mutants.append(Mutant(
            self.where, f'{old} => {squeeze(new) or "nothing"}',
            [(site, new)]))

    def condition(self, i, end, loop):
        if i == end or 'IS_ENABLED' in self.words[i:end]:
            return
        site = self.site(i, end, False)
        changed = self.changed(i, end)
        body = ' '.join(self.words[end + 1:end + 5])
        if re.match(r'({ )?(return|goto|break|continue|ret = -)\b', body):
            changed.append('0')
        elif not changed and not loop:
            changed.append('!(' + self.source(i, end) + ')')
        for new in changed:
            self.add(site, new)

    def expression(self, i, end):
        changed = self.changed(i, end)
        if changed:
            site = self.site(i, end, False)
            for new in changed:
                self.add(site, new)

    def changed(self, i, end):
        """The texts of an expression, each with one change."""
        found = []

        def replace(first, last, new):
            """Replace the tokens from first up to, not including, last."""
            text = self.text[self.tokens[i][1]:self.tokens[first][1]] + new + \
                self.text[self.tokens[last - 1][2]:self.tokens[end - 1][2]]
            if squeeze(text) not in map(squeeze, found):
                found.append(text)

        for k in range(i, end):
            word = self.words[k]
            before = self.words[k - 1] if k > i else ''
            after = self.words[k + 1] if k + 1 < end else ''
            binary = re.match(r'[\w)\]]', before) and \
                before not in ('return', 'sizeof')
            if word in ('+', '-') and binary and re.fullmatch('1(ULL)?', after):
                replace(k, k + 1, '-' if word == '+' else '+')
            elif word == '&&' or word in ('||', '|') and binary:
                if 'GFP' in self.source(i, end):
                    continue
                stops = '&& || ? : , ; = return |= ='.split() + \
                    ['|'] * (word == '|')
                left = self.left(k, i, stops)
                right = self.right(k, end, stops)
                replace(left, k + 1, '')
                replace(k, right, '')
            elif word == '?' and after == ':':
                replace(self.left(k, i, [',', '=', ':']), k + 2, '')
                replace(k, self.right(k + 1, end, [',']), '')
            elif word == '?':
                replace(k, k + 1, '&& 0 ?')
                replace(k, k + 1, '|| 1 ?')
            elif word in SWAP and not (word == 'true' and before == '=') and \
                    (after == '(' or not word.startswith('min')):
                replace(k, k + 1, SWAP[word])
        text = self.source(i, end)
        for pattern, new in WEAKER:
            for match in pattern.finditer(text):
                found.append(text[:match.start()] + match.expand(new) +
                             text[match.end():])
        return found

    def left(self, k, first, stops):
        """The beginning of the operand before the operator k."""
        depth = 0
        while k > first:
            word = self.words[k - 1]
            depth += (word in ')]}') - (word in '([{')
            if depth < 0 or not depth and word in stops:
                break
            k -= 1
        return k

    def right(self, k, last, stops):
        """The end of the operand after the operator k."""
        depth, k = 0, k + 1
        while k < last:
            word = self.words[k]
            depth += (word in '([{') - (word in ')]}')
            if depth < 0 or not depth and word in stops:
                break
            k += 1
        return k


def mutate(name, text):
    """Return the mutants of a file."""
    code = COMMENT.sub(lambda m: re.sub(r'[^\n]', ' ', m[0]), text)
    mutants = []
    for match in FUNCTION.finditer(code):
        function = Function(f'{name} {match[1]}', code, match.start(),
                            match.end())
        mutants += function.mutants
    return mutants


def schema(text, mutants):
    """Return the text with all mutants, a list of pairs (number, mutant)."""
    changes = {}
    for number, mutant in mutants:
        for site, new in mutant.changes:
            changes.setdefault(site, []).append((number, new))
    for site in sorted(changes, key=lambda s: -s.start):
        old = text[site.start:site.end]
        if site.statement:
            new = '{ ' + ''.join(f'if (MUTANT({n})) {{ {t}; }} else '
                                 for n, t in changes[site]) + f'{old} }}'
        else:
            new = '(' + ''.join(f'MUTANT({n}) ? ({t}) : '
                                for n, t in changes[site]) + f'({old}))'
        text = text[:site.start] + new + text[site.end:]
    return text
