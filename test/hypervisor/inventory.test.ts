// The comparison of two inventories, as data and in words.

import { expect } from 'chai';
import fc from 'fast-check';
import {
  INVENTORY_TEXT_BYTES_MAX,
  compareInventories,
  describeDifference,
  inventoryText,
  type Inventory,
} from '../../src/hypervisor/inventory.js';

const say = (primary: Inventory, secondary: Inventory): string[] =>
  compareInventories(primary, secondary).map(describeDifference);

describe('hypervisor/inventory', () => {
  it('says what differs, on which side', () => {
    const machine = { machine: 'pc-q35-7.2', QEMU: '7.2.22' };
    expect(say(machine, { ...machine })).to.deep.equal([]);
    expect(say(machine, { ...machine, machine: 'pc-i440fx-7.2' })).to.deep.equal([
      'machine: pc-q35-7.2 on the primary, pc-i440fx-7.2 on the secondary',
    ]);
    expect(say({}, { machine: 'microvm' })).to.deep.equal([
      'machine: none on the primary, microvm on the secondary',
    ]);
    expect(say({ devices: '' }, {})).to.deep.equal([]);
  });

  it('of a list, says what is missing and what is too much, and in which order', () => {
    const devices = (...lines: string[]): Inventory => ({ devices: lines.join('\n') });
    expect(say(devices('a', 'b', 'c'), devices('a', 'x', 'c'))).to.deep.equal([
      'devices: b only on the primary; x only on the secondary',
    ]);
    expect(say(devices('a', 'b', 'b'), devices('a', 'b'))).to.deep.equal(['devices: b only on the primary']);
    expect(say(devices('a', 'b'), devices('b', 'a'))).to.deep.equal([
      'devices: in another order on the secondary',
    ]);
    expect(say(devices('a'), devices('b', 'c', 'd', 'e', 'f', 'g', 'h'))).to.deep.equal([
      'devices: a only on the primary; b, c, d, e, f and 2 more only on the secondary',
    ]);
    expect(say({}, devices('a', 'b'))).to.deep.equal(['devices: a, b only on the secondary']);
  });

  it('of whatever two: no difference if and only if they are the same; each is named once', () => {
    const inventory = fc.dictionary(fc.string({ maxLength: 4 }), fc.stringMatching(/^[ab\n]{0,6}$/), {
      maxKeys: 5,
    });
    fc.assert(
      fc.property(inventory, inventory, (one, other) => {
        const sorted = (given: Inventory) =>
          JSON.stringify(
            Object.entries(given)
              .filter(([, text]) => text !== '')
              .sort(),
          );
        const differences = compareInventories(one, other);
        expect(differences.length === 0).to.equal(sorted(one) === sorted(other));
        expect(new Set(differences.map(({ name }) => name)).size).to.equal(differences.length);
        for (const difference of differences) expect(describeDifference(difference)).to.include(': ');
        expect(compareInventories(one, { ...one })).to.deep.equal([]);
      }),
    );
  });

  it('keeps a long list within its bound, and still tells two of them apart', () => {
    const lines = Array.from({ length: 400 }, (_, index) => `device ${index} at 00:${index}`);
    const text = inventoryText(lines);
    expect(Buffer.byteLength(text)).to.be.at.most(INVENTORY_TEXT_BYTES_MAX);
    expect(text.split('\n')[0]).to.equal(lines[0]);
    expect(text).to.match(/\n\d+ more \([0-9a-f]{64}\)$/);
    expect(inventoryText([...lines])).to.equal(text);
    expect(inventoryText([...lines.slice(0, -1), 'another'])).to.not.equal(text);
    expect(inventoryText(['é'.repeat(INVENTORY_TEXT_BYTES_MAX)])).to.match(/^1 more \(/);
    expect(inventoryText(['one', 'two'])).to.equal('one\ntwo');
  });
});
