import { amount, link, matches, query, requirements } from '../text';

describe('requirements', () => {
  it.each([
    ['numpy', ['numpy']],
    ['numpy pandas, scipy', ['numpy', 'pandas', 'scipy']],
    ['numpy >= 1.26, < 3', ['numpy >= 1.26, < 3']],
    ['# mine\nnumpy==2.0  # pinned\r\n\nnumpy==2.0\nscipy', ['numpy==2.0', 'scipy']],
    ['%pip install tinytree', ['tinytree']],
    ['!uv pip install "a[b]"', ['"a[b]"']],
    ['python -m pip install a b', ['a', 'b']],
    ['demo @ https://example.org/demo.whl#sha256=0a', ['demo @ https://example.org/demo.whl#sha256=0a']],
    ['  ', []]
  ])('of %j', (text, expected) => {
    expect(requirements(text)).toEqual(expected);
  });
});

test('amounts are those of the command line', () => {
  expect([999, 1500, 2_500_000, 3_210_000_000].map(amount)).toEqual(['999 bytes', '2 kB', '3 MB', '3.2 GB']);
});

test('every word of a filter has to fit', () => {
  const item = { name: 'scikit-learn', summary: 'Machine learning in Python' };
  expect(matches(item, 'LEARN machine')).toBe(true);
  expect(matches(item, 'learn biology')).toBe(false);
  expect(matches(item, '')).toBe(true);
});

test('what is searched for while it is typed', () => {
  expect(['numpy', ' numpy >= 1', 'machine learning', 'demo[extra]'].map(query)).toEqual([
    'numpy',
    'numpy',
    'machine learning',
    'demo'
  ]);
  expect(['a\nb', 'a, b', 'a @ b', './a', '%pip install a', 'x'.repeat(101)].map(query).join('')).toBe('');
});

test('only links to pages are links', () => {
  expect(link('https://example.org/a?b')).toBe('https://example.org/a?b');
  const others = ['javascript:alert(1)', 'javascript://a%0aalert(1)', 'https://a b', null];
  expect(others.map(link)).toEqual([null, null, null, null]);
});
