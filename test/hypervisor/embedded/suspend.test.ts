// A suspended machine does nothing: it says nothing, changes nothing, hears nothing. And calls that do not fit the
// state are refused.

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { Bitmap } from '../../../src/hypervisor/bitmap.js';
import { openEmbeddedSource } from '../../../src/hypervisor/embedded/index.js';
import type { SourceDomain } from '../../../src/hypervisor/port.js';
import { INVALID_FRAME, PAGE_SIZE, PageType } from '../../../src/stream/format.js';
import { Console, expectCode } from '../support.js';
import { builtin, copyRam } from './support.js';

describe('embedded: suspend', () => {
  let machine: SourceDomain;
  let screen: Console;
  beforeEach(async () => {
    machine = await openEmbeddedSource(
      builtin({ workingSetPages: 64, dirtyPages: 16, tickMs: 2 }, 4 * 2 ** 20),
    );
    screen = new Console(machine);
    await machine.start();
    await screen.untilText('tick 3 ok\n');
  });
  afterEach(() => machine.destroy());

  it('holds exactly: nothing is said, no page changes; then all goes on in order', async () => {
    for (let round = 0; round < 5; round++) {
      await machine.suspend();
      const said = screen.text;
      const before = await copyRam(machine);
      const contextBefore = await machine.hvmContext();
      await sleep(40); // twenty ticks' time
      expect(screen.text, 'said while suspended').to.equal(said);
      expect((await copyRam(machine)).equals(before), 'RAM').to.equal(true);
      const contextAfter = await machine.hvmContext();
      expect(contextAfter.length).to.equal(contextBefore.length);
      await machine.resume();
      const ticks = screen.ticks().length;
      await screen.until(() => screen.ticks().length > ticks + 2);
    }
    const ticks = screen.ticks();
    expect(ticks).to.deep.equal(ticks.map((_, index) => index + 1));
    expect(screen.text).to.not.include('BAD');
  });

  it('has delivered all output of before when it resolves', async () => {
    for (let round = 0; round < 20; round++) {
      await machine.suspend();
      const [ram] = await Promise.all([copyRam(machine)]);
      // The guest's own count of its ticks: the last that it has said, or the one that it is at work on.
      const said = screen.ticks().at(-1) ?? 0;
      const counted = ram.readUInt32LE(0x104010);
      expect(counted - said, `said ${said}, counted ${counted}`).to.be.oneOf([0, 1]);
      await machine.resume();
    }
  });

  it('keeps input for when the machine goes on', async () => {
    await machine.suspend();
    const before = await copyRam(machine);
    const context = await machine.hvmContext();
    await machine.input(Buffer.from('q'));
    expect((await copyRam(machine)).equals(before)).to.equal(true);
    expect((await machine.hvmContext()).length).to.equal(context.length);
    await machine.resume();
    await screen.untilText('bye\n');
  });

  it('does not take more input than it may hold', async () => {
    await machine.suspend();
    await machine.input(new Uint8Array(60_000));
    const error = await expectCode(machine.input(new Uint8Array(10_000)), 'FAILED');
    expect(error.facts).to.include({ waiting: 60_000, length: 10_000 });
    await machine.resume();
  });

  it('refuses calls that do not fit its state', async () => {
    await expectCode(machine.start(), 'WRONG_STATE');
    await expectCode(machine.resume(), 'WRONG_STATE');
    await expectCode(machine.hvmContext(), 'WRONG_STATE');
    const bitmap = new Bitmap(1024);
    await expectCode(machine.cleanLogDirty(bitmap), 'LOG_DIRTY');
    await expectCode(machine.disableLogDirty(), 'LOG_DIRTY');
    await machine.enableLogDirty();
    await expectCode(machine.enableLogDirty(), 'LOG_DIRTY');
    await machine.suspend();
    await expectCode(machine.suspend(), 'WRONG_STATE');
    await expectCode(machine.start(), 'WRONG_STATE');
    await machine.resume();
  });

  it('knows its frames', async () => {
    const types = new Uint8Array(3);
    await machine.pageTypes(Uint32Array.of(0, INVALID_FRAME, 1023), 3, types);
    expect([...types]).to.deep.equal([PageType.NOTAB, PageType.XTAB, PageType.NOTAB]);
    const slab = new Uint8Array(new SharedArrayBuffer(PAGE_SIZE));
    await expectCode(machine.pageTypes(Uint32Array.of(1024), 1, types), 'FRAME_OUT_OF_RANGE');
    const error = await expectCode(machine.copyPages(Uint32Array.of(1024), 1, slab, 0), 'FRAME_OUT_OF_RANGE');
    expect(error.facts).to.deep.equal({ gfn: 1024, p2mSize: 1024 });
    await expectCode(machine.copyPages(Uint32Array.of(0, 1), 2, slab, 0), 'FAILED');
  });

  it('copies into a slab that is not shared, at any offset, and knows many slabs', async () => {
    await machine.suspend();
    const ram = await copyRam(machine);
    const frames = Uint32Array.of(256, 3, 260, 277, 1023);
    const expected = Buffer.concat(
      [...frames].map((pfn) => ram.subarray(pfn * PAGE_SIZE, (pfn + 1) * PAGE_SIZE)),
    );
    for (let round = 0; round < 20; round++) {
      const memory = round % 2 === 0 ? SharedArrayBuffer : ArrayBuffer;
      const offset = round * 7;
      const slab = new Uint8Array(new memory(expected.length + 200));
      await machine.copyPages(frames, frames.length, slab, offset);
      expect(
        Buffer.from(slab)
          .subarray(offset, offset + expected.length)
          .equals(expected),
      ).to.equal(true);
    }
    // More than the staging memory holds at a time, together with others.
    const plain = new Uint8Array(2048 * PAGE_SIZE);
    const twice = Uint32Array.from({ length: 2048 }, (_, k) => k % 1024);
    await Promise.all([
      machine.copyPages(twice, 2048, plain, 0),
      machine.copyPages(frames, frames.length, new Uint8Array(expected.length), 0),
    ]);
    expect(Buffer.from(plain).equals(Buffer.concat([ram, ram]))).to.equal(true);
    await machine.resume();
  });
});
