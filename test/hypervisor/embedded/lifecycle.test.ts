// What cannot be made is refused with the facts; what ends, ends wholly.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { expect } from 'chai';
import { builtinGuestFile } from '../../../src/hypervisor/embedded/config.js';
import {
  openEmbeddedSource,
  openEmbeddedTarget,
  type EmbeddedConfig,
} from '../../../src/hypervisor/embedded/index.js';
import { PAGE_SIZE } from '../../../src/stream/format.js';
import { MIB, Console, expectCode, firstEvent } from '../support.js';
import { builtin } from './support.js';

const small = builtin({ workingSetPages: 16, dirtyPages: 1, tickMs: 5 }, 4 * MIB);

describe('embedded: what it refuses to make', () => {
  const image = (guest: object, memoryBytes = 16 * MIB): EmbeddedConfig => ({
    name: 'bad',
    memoryBytes,
    guest: { kind: 'image', ...guest },
  });
  const file = process.execPath; // large, and no multiboot image
  const cases: Record<string, [EmbeddedConfig, string]> = {
    'memory that is not a power of two': [builtin({}, 24 * MIB), 'memoryBytes'],
    'too little memory': [builtin({}, 2 * MIB), 'memoryBytes'],
    'too much memory': [builtin({}, 2048 * MIB), 'memoryBytes'],
    'memory that is no number': [builtin({}, NaN), 'memoryBytes'],
    'a working set larger than memory': [
      builtin({ workingSetPages: 1024, dirtyPages: 1 }, 4 * MIB),
      'guest.workingSetPages',
    ],
    'an empty working set': [builtin({ workingSetPages: 0 }), 'guest.workingSetPages'],
    'more dirty pages than there are': [builtin({ workingSetPages: 10, dirtyPages: 11 }), 'guest.dirtyPages'],
    'half a dirty page': [builtin({ dirtyPages: 0.5 }), 'guest.dirtyPages'],
    'a tick of no time': [builtin({ tickMs: 0 }), 'guest.tickMs'],
    'nothing to boot': [image({}), 'guest.bios'],
    'a kernel without BIOS': [image({ multiboot: file, kernel: file }), 'guest.kernel'],
    'an initrd in little memory': [image({ multiboot: file, initrd: file }), 'memoryBytes'],
    'a file that is not there': [image({ multiboot: '/nowhere/at/all' }), 'guest.multiboot'],
    'a folder': [image({ multiboot: '/' }), 'guest.multiboot'],
    'an image that is not multiboot': [image({ multiboot: file }), 'guest.multiboot'],
    'a disk too large for memory': [image({ multiboot: builtinGuestFile, hda: file }), 'guest.hda'],
    'a floppy too large for a checkpoint': [image({ multiboot: builtinGuestFile, fda: file }), 'guest.fda'],
    'half a block': [builtin({ diskBlocks: 0.5 }), 'guest.diskBlocks'],
    'a disk of too many blocks': [builtin({ diskBlocks: 65_537 }), 'guest.diskBlocks'],
  };
  for (const [name, [config, key]] of Object.entries(cases)) {
    it(name, async () => {
      const error = await expectCode(openEmbeddedSource(config), 'BAD_CONFIGURATION');
      expect(error.facts).to.have.property('key', key);
      expect(error.facts).to.have.property('value');
      await expectCode(openEmbeddedTarget(config), 'BAD_CONFIGURATION');
    });
  }
});

describe('embedded: ends', () => {
  it('crashed when its thread dies, and every call with it', async () => {
    const machine = await openEmbeddedSource(small);
    const ended = firstEvent(machine);
    await machine.start();
    const slab = new Uint8Array(new SharedArrayBuffer(1024 * PAGE_SIZE));
    const frames = Uint32Array.from({ length: 1024 }, (_, pfn) => pfn);
    const thread: unknown = Reflect.get(machine, 'worker');
    if (!(thread instanceof Worker)) throw new Error('where is the machine’s thread?');
    const calls = Promise.allSettled(
      Array.from({ length: 50 }, () => machine.copyPages(frames, 1024, slab, 0)),
    );
    await thread.terminate();
    const codes = (await calls).map((call) =>
      call.status === 'rejected' ? (call.reason as { code: string }).code : 'done',
    );
    expect(codes.at(-1)).to.equal('DOMAIN_GONE');
    expect(new Set(codes)).to.not.include('FAILED');
    expect(await ended).to.have.property('kind', 'crashed');
    expect((await machine.info()).state).to.equal('crashed');
    await expectCode(machine.suspend(), 'DOMAIN_GONE');
    await machine.destroy();
  });

  it('when destroyed, in any state and more than once', async () => {
    for (const how of ['created', 'running', 'suspended', 'target']) {
      const machine = how === 'target' ? await openEmbeddedTarget(small) : await openEmbeddedSource(small);
      if (how === 'running' || how === 'suspended') await machine.start();
      if (how === 'suspended') await machine.suspend();
      let completed = 0;
      machine.events$.subscribe({ complete: () => completed++ });
      machine.output$.subscribe({ complete: () => completed++ });
      const pending = expectCode(machine.enableLogDirty(), 'DOMAIN_GONE');
      await Promise.all([machine.destroy(), machine.destroy()]);
      await machine.destroy();
      await pending;
      expect(completed).to.equal(2);
      expect((await machine.info()).state).to.equal('destroyed');
      await expectCode(machine.resume(), 'DOMAIN_GONE');
      await expectCode(machine.input(Uint8Array.of(1)), 'DOMAIN_GONE');
    }
  });

  it('and leaves nothing that keeps a process alive, nor a word on its output', async () => {
    const entry = new URL('../../../src/hypervisor/embedded/index.js', import.meta.url).href;
    const program = `
      import { openEmbeddedSource, openEmbeddedTarget } from ${JSON.stringify(entry)};
      const config = ${JSON.stringify(small)};
      const [source, target] = await Promise.all([openEmbeddedSource(config), openEmbeddedTarget(config)]);
      await source.start();
      await new Promise((resolve) => source.output$.subscribe(resolve));
      await Promise.all([source.destroy(), target.destroy()]);`;
    const { stdout, stderr } = await promisify(execFile)(
      process.execPath,
      ['--input-type=module', '-e', program],
      { timeout: 15_000 },
    );
    expect(stdout + stderr).to.equal('');
  });

  it('and a machine that was seen to run leaves its console complete', async () => {
    const machine = await openEmbeddedSource(small);
    const screen = new Console(machine);
    await machine.start();
    await screen.untilText('tick 3 ok\n');
    await machine.suspend();
    const said = screen.text;
    await machine.destroy();
    expect(screen.text).to.equal(said);
  });
});
