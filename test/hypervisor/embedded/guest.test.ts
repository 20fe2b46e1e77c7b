// The machine boots, its guest ticks in real time, sees what is wrong with its memory, and shuts down when told to.

import { expect } from 'chai';
import { builtinGuestFile } from '../../../src/hypervisor/embedded/config.js';
import { openEmbeddedSource } from '../../../src/hypervisor/embedded/index.js';
import type { SourceDomain } from '../../../src/hypervisor/port.js';
import { MIB, Console, expectCode, firstEvent, withImage } from '../support.js';
import { builtin } from './support.js';

describe('embedded: the guest', () => {
  let domain: SourceDomain | null = null;
  const open = async (config = builtin()): Promise<SourceDomain> => {
    domain = await openEmbeddedSource(config);
    return domain;
  };
  afterEach(async () => {
    await domain?.destroy();
    domain = null;
  });

  it('says nothing before it is started, then ticks from 1 on, without a gap', async () => {
    const machine = await open();
    const screen = new Console(machine);
    expect((await machine.info()).state).to.equal('created');
    await machine.start();
    expect((await machine.info()).state).to.equal('running');
    await screen.untilText('tick 10 ok\n');
    expect(screen.text).to.match(/^(tick \d+ ok\n)+/);
    expect(screen.ticks().slice(0, 10)).to.deep.equal([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  });

  it('ticks by real time', async () => {
    const machine = await open(builtin({ workingSetPages: 16, dirtyPages: 4, tickMs: 20 }));
    const screen = new Console(machine);
    await machine.start();
    await screen.untilText('tick 5 ok\n');
    const began = performance.now();
    await screen.untilText('tick 45 ok\n');
    // 40 ticks of 20 ms; never faster, and slower only as far as this machine is.
    expect(performance.now() - began).to.be.within(700, 4000);
  });

  it('takes ticks longer than its timer can count', async () => {
    const machine = await open(builtin({ workingSetPages: 16, dirtyPages: 4, tickMs: 130 }));
    const screen = new Console(machine);
    await machine.start();
    await screen.untilText('tick 2 ok\n');
    const began = performance.now();
    await screen.untilText('tick 6 ok\n');
    expect(performance.now() - began).to.be.within(400, 2000);
  });

  it('sees one wrong bit in its memory, and sees that it is right again', async () => {
    const machine = await open(builtin({ workingSetPages: 64, dirtyPages: 4, tickMs: 5 }));
    const screen = new Console(machine);
    await machine.start();
    await screen.untilText('tick 3 ok\n');
    await machine.input(Buffer.from('b'));
    await screen.until(() => / BAD 1\n/.test(screen.text));
    await screen.until(() => /BAD 1\n(tick \d+ BAD 1\n)*tick \d+ ok\n/.test(screen.text));
    // The page is wrong until its turn to be rewritten comes: 64 pages, 4 a tick.
    expect([...screen.text.matchAll(/ BAD 1\n/g)]).to.have.length(16);
  });

  it('shuts down on request: says bye, and the domain is gone', async () => {
    const machine = await open(builtin({ workingSetPages: 16, dirtyPages: 1, tickMs: 5 }));
    const screen = new Console(machine);
    const ended = firstEvent(machine);
    await machine.start();
    await screen.untilText('tick 2 ok\n');
    await machine.input(Buffer.from('q'));
    expect(await ended).to.deep.equal({ kind: 'shutdown' });
    expect(screen.text).to.match(/tick \d+ ok\nbye\n$/);
    expect((await machine.info()).state).to.equal('shutdown');
    await expectCode(machine.suspend(), 'DOMAIN_GONE');
    await expectCode(machine.hvmContext(), 'DOMAIN_GONE');
    expect(await firstEvent(machine), 'for who comes late').to.deep.equal({ kind: 'shutdown' });
  });

  it('boots an image that the configuration names, with its command line', async () => {
    const machine = await open({
      name: 'image',
      memoryBytes: 8 * MIB,
      guest: {
        kind: 'image',
        multiboot: builtinGuestFile,
        commandLine: 'quiet pages=32 dirty=32 x tick_ms=5',
      },
    });
    const screen = new Console(machine);
    await machine.start();
    await screen.untilText('tick 3 ok\n');
    // All pages are rewritten at each tick: what 'b' spoils is right again at the next.
    await machine.input(Buffer.from('b'));
    await screen.until(() => /BAD 1\ntick \d+ ok\n/.test(screen.text));
    expect([...screen.text.matchAll(/BAD/g)]).to.have.length(1);
  });

  it('refuses a working set that its machine has no memory for', async () => {
    const machine = await open({
      name: 'image',
      memoryBytes: 4 * MIB,
      guest: { kind: 'image', multiboot: builtinGuestFile, commandLine: 'pages=1024' },
    });
    const screen = new Console(machine);
    const ended = firstEvent(machine);
    await machine.start();
    expect(await ended).to.deep.equal({ kind: 'shutdown' });
    expect(screen.text).to.equal('bad configuration\n');
  });

  it('crashes on a triple fault', async () => {
    // An interrupt without a table of them: lidt [an empty one]; ud2
    const code = Uint8Array.from([
      0xfa, 0x0f, 0x01, 0x1d, 0x2a, 0x00, 0x10, 0x00, 0x0f, 0x0b, 0, 0, 0, 0, 0, 0,
    ]);
    await withImage(code, async (multiboot) => {
      const machine = await open({
        name: 'fault',
        memoryBytes: 4 * MIB,
        guest: { kind: 'image', multiboot },
      });
      const ended = firstEvent(machine);
      await machine.start();
      const event = await ended;
      expect(event.kind).to.equal('crashed');
      expect((await machine.info()).state).to.equal('crashed');
      await expectCode(machine.suspend(), 'DOMAIN_GONE');
    });
  });
});
