// What differs, laid over what is shared: the result, and the place of each part of it in the file.

import { expect } from 'chai';
import fc from 'fast-check';
import { isMap, overlay } from '../../src/config/overlay.js';
import { valueAt, type Keys } from '../../src/config/problems.js';

const laid = (shared: unknown, own: unknown) =>
  overlay({ value: shared, keys: ['shared'] }, { value: own, keys: ['own'] });

/** Of all that has no parts, and of each section. */
function* pathsOf(value: unknown, keys: Keys = []): Generator<Keys> {
  yield keys;
  if (Array.isArray(value))
    for (const [index, item] of value.entries()) yield* pathsOf(item, [...keys, index]);
  if (isMap(value)) for (const [key, part] of Object.entries(value)) yield* pathsOf(part, [...keys, key]);
}

const leaf = fc.oneof(fc.integer(), fc.string(), fc.boolean(), fc.constant(null));
const key = fc.constantFrom('a', 'b', 'id', 'constructor');
const section = fc.letrec<{ tree: unknown }>((tie) => ({
  tree: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    leaf,
    fc.dictionary(key, tie('tree')),
    fc.array(leaf),
    fc.uniqueArray(fc.record({ id: fc.constantFrom('x', 'y', 'z'), a: tie('tree') }), {
      selector: ({ id }) => id,
    }),
  ),
})).tree;

describe('config: what differs is laid over what is shared', () => {
  const cases: readonly (readonly [string, unknown, unknown, unknown])[] = [
    [
      'maps key by key',
      { a: { b: 1, c: 2 }, d: 3 },
      { a: { b: 4 }, e: 5 },
      { a: { b: 4, c: 2 }, d: 3, e: 5 },
    ],
    [
      'lists of things with an id by their ids, new ones behind',
      [{ id: 'x', mac: 1 }, { id: 'y' }],
      [
        { id: 'z', tap: 2 },
        { id: 'x', tap: 3 },
      ],
      [{ id: 'x', mac: 1, tap: 3 }, { id: 'y' }, { id: 'z', tap: 2 }],
    ],
    ['other lists are replaced', [1, 2, 3], [4], [4]],
    ['a list is emptied', [{ id: 'x' }], [], []],
    [
      'one list of things without ids is enough to replace',
      [{ id: 'x' }],
      [{ id: 'x', a: 1 }, 5],
      [{ id: 'x', a: 1 }, 5],
    ],
    [
      'a section replaces a word, and a word a section',
      { a: 'stdout', b: { c: 1 } },
      { a: { file: 'f' }, b: 'none' },
      { a: { file: 'f' }, b: 'none' },
    ],
    ['what is left undefined is shared', { a: 1 }, { a: undefined }, { a: 1 }],
    [
      'nothing is inherited from where objects come from',
      { constructor: 2 },
      { a: 1 },
      { constructor: 2, a: 1 },
    ],
    [
      'an id twice stays there twice, for somebody to refuse',
      [{ id: 'x' }, { id: 'x' }],
      [
        { id: 'x', a: 1 },
        { id: 'x', a: 2 },
      ],
      [{ id: 'x', a: 1 }, { id: 'x' }, { id: 'x', a: 2 }],
    ],
  ];
  for (const [what, shared, own, expected] of cases) {
    it(what, () => expect(laid(shared, own).value).to.deep.equal(expected));
  }

  it('knows where each part stands, and where a missing one would', () => {
    const shared = { network: [{ id: 'y' }, { id: 'x', mac: 'm' }], memory: 1 };
    const { locate } = laid(shared, { network: [{ id: 'z' }, { id: 'x', tap: 't' }] });
    const place = (...keys: Keys) => locate(keys).keys.join('.');
    expect(place('memory')).to.equal('shared.memory');
    expect(place('network', 0, 'id')).to.equal('shared.network.0.id');
    expect(place('network', 1, 'mac')).to.equal('shared.network.1.mac');
    expect(place('network', 1, 'tap')).to.equal('own.network.1.tap');
    expect(place('network', 2, 'id')).to.equal('own.network.0.id');
    expect(locate(['network', 1, 'model'])).to.deep.equal({
      keys: ['own', 'network', 1, 'model'],
      shared: ['shared', 'network', 1, 'model'],
    });
    expect(locate(['network', 0, 'tap'])).to.deep.equal({
      keys: ['shared', 'network', 0, 'tap'],
      shared: null,
    });
  });

  it('whatever it is: what is found in a place of the file is what came out, and laid on again it changes nothing', () => {
    fc.assert(
      fc.property(section, section, (shared, own) => {
        const { value, locate } = laid(shared, own);
        for (const keys of pathsOf(value)) {
          const { keys: at, shared: both } = locate(keys);
          // A section that has parts of both stands in two places, and each is a part of it.
          if (both === null) expect(valueAt({ shared, own }, at)).to.deep.equal(valueAt(value, keys));
          else
            for (const place of [at, both]) expect(typeof valueAt({ shared, own }, place)).to.equal('object');
        }
        expect(laid(value, own).value).to.deep.equal(value);
        expect(laid(undefined, own).value).to.deep.equal(own);
        expect(laid(shared, undefined).value).to.deep.equal(shared);
      }),
    );
  });

  it('ends with what contains itself', () => {
    const shared: Record<string, unknown> = {};
    const own: Record<string, unknown> = {};
    shared['a'] = shared;
    own['a'] = own;
    expect(
      valueAt(
        laid(shared, own).value,
        Array.from({ length: 20 }, () => 'a'),
      ),
    ).to.equal(own);
  });
});
