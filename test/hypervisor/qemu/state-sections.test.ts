// The sections of device states, made up: the same machine is always found the same, another one never.

import { expect } from 'chai';
import fc from 'fast-check';
import { StateSections, runStateOf, setRunState } from '../../../src/hypervisor/qemu/state/state-sections.js';

interface Section {
  readonly id: number;
  readonly name: string;
  readonly instance: number;
  readonly data: Uint8Array;
}

function u32(value: number): Buffer {
  const octets = Buffer.alloc(4);
  octets.writeUInt32BE(value);
  return octets;
}

const header = ({ id, name, instance }: Section): Buffer =>
  Buffer.concat([Buffer.of(4), u32(id), Buffer.of(name.length), Buffer.from(name), u32(instance), u32(1)]);

function stateOf(sections: readonly Section[]): Uint8Array {
  return Buffer.concat([
    Buffer.from('QEVM\0\0\0\x03', 'latin1'),
    ...sections.flatMap((section) => [header(section), section.data, Buffer.of(0x7e), u32(section.id)]),
    Buffer.of(0),
  ]);
}

const device = fc.record({
  name: fc.stringMatching(/^[a-z0-9:./-]{1,20}$/),
  instance: fc.nat(3),
  data: fc.uint8Array({ maxLength: 200 }),
});
const machine = fc
  .array(device, { minLength: 1, maxLength: 8 })
  .map((devices) => devices.map((one, k): Section => ({ ...one, id: 3 + 2 * k })));

describe('qemu: the sections of a device state', () => {
  it('finds the same machine, whatever its devices hold', () => {
    fc.assert(
      fc.property(machine, fc.array(fc.uint8Array({ maxLength: 300 })), (sections, data) => {
        const known = StateSections.of(stateOf(sections));
        expect(known.names).to.deep.equal(sections.map(({ name, instance }) => `${name} ${instance}`));
        const later = sections.map((section, k) => ({ ...section, data: data[k] ?? new Uint8Array(0) }));
        return known.match(stateOf(later));
      }),
    );
  });

  it('finds no machine with a device more, less, in another place, or of another name', () => {
    fc.assert(
      fc.property(machine, device, fc.nat(8), (sections, more, at) => {
        const known = StateSections.of(stateOf(sections));
        const place = at % (sections.length + 1);
        const plugged = sections.toSpliced(place, 0, { ...more, id: 2 * place + 2 });
        expect(known.match(stateOf(plugged))).to.equal(false);
        expect(StateSections.of(stateOf(plugged)).match(stateOf(sections))).to.equal(false);
        const renamed = sections.with(place % sections.length, { ...more, name: 'another', id: 99 });
        expect(known.match(stateOf(renamed))).to.equal(false);
      }),
    );
  });

  it('a guest that writes what looks like a section is at worst looked at more closely', () => {
    const forged = header({ id: 7, name: 'forged', instance: 0, data: Buffer.alloc(0) });
    const data = Buffer.concat([Buffer.of(0x7e), u32(3), forged]);
    const sections = [{ id: 3, name: 'serial', instance: 0, data }];
    expect(
      StateSections.of(stateOf([{ ...sections[0], id: 3, name: 'serial', instance: 0, data: u32(0) }])).match(
        stateOf(sections),
      ),
    ).to.equal(true);
    expect(() => StateSections.of(stateOf(sections)).match(stateOf(sections))).to.not.throw();
  });

  it('says what the guest does, and is told', () => {
    const word = Buffer.alloc(104);
    word.writeUInt32BE(8);
    word.write('running', 4);
    const serial = { id: 3, name: 'serial', instance: 0, data: Buffer.alloc(10) };
    const state = stateOf([serial, { id: 9, name: 'globalstate', instance: 0, data: word }]);
    expect(runStateOf(state)).to.equal('running');
    expect(setRunState(state, 'io-error')).to.equal(true);
    expect(runStateOf(state)).to.equal('io-error');
    expect(setRunState(state, 'running')).to.equal(true);
    expect(runStateOf(state)).to.equal('running');
    expect(runStateOf(stateOf([serial]))).to.equal(null);
    expect(setRunState(stateOf([serial]), 'paused')).to.equal(false);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (octets) => {
        StateSections.of(octets).match(octets);
        runStateOf(octets);
      }),
    );
  });
});
