// A machine that was taken over to is protected in its turn: over three generations each standby is the machine at each
// checkpoint, and goes on where the one before it was.

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { openEmbeddedSource, openEmbeddedTarget } from '../../../src/hypervisor/embedded/index.js';
import type { Domain, SourceDomain } from '../../../src/hypervisor/port.js';
import { MIB, Console, expectCode, firstEvent, successiveTicksOf } from '../support.js';
import { Protection } from '../protection.js';
import { builtin, copyRam } from './support.js';

const GENERATIONS = 3;
const CHECKPOINTS = 5;

describe('embedded: a machine that was taken over to', () => {
  const config = builtin({ workingSetPages: 256, dirtyPages: 64, tickMs: 5 }, 4 * MIB);
  const machines: Domain[] = [];
  const keep = <T extends Domain>(machine: T): T => {
    machines.push(machine);
    return machine;
  };
  afterEach(async () => {
    for (const machine of machines.splice(0)) await machine.destroy();
  });

  it(`is protected in its turn, and its standby in its turn, ${GENERATIONS} times`, async () => {
    let source: SourceDomain = keep(await openEmbeddedSource(config));
    let screen = new Console(source);
    await source.start();
    /** All that the machine has said, in whichever thread, up to the last checkpoint. */
    let said = '';
    for (let generation = 0; generation < GENERATIONS; generation++) {
      await screen.until(() => screen.ticks().length >= 3);
      const target = keep(await openEmbeddedTarget(config));
      expect(() => target.source())
        .to.throw()
        .with.property('code', 'WRONG_STATE');
      const targetScreen = new Console(target);
      const protection = await Protection.begin(source, target);
      let saidThen = '';
      let context: Uint8Array = new Uint8Array(0);
      const now = source;
      const take = now.hvmContext.bind(now);
      now.hvmContext = async () => (context = await take());
      for (let epoch = 0; epoch < CHECKPOINTS; epoch++) {
        await sleep(Math.random() * 20); // any moment will do: mid-check, mid-rewrite, mid-line
        let ram: Uint8Array = new Uint8Array(0);
        await protection.checkpoint(async () => {
          saidThen = screen.text;
          ram = await copyRam(now);
        });
        expect((await copyRam(target)).equals(ram), `RAM at ${generation}.${epoch}`).to.equal(true);
      }
      await source.destroy();
      await protection.breakOff();
      expect(Buffer.from(await target.hvmContext()).equals(context), `context of ${generation}`).to.equal(
        true,
      );
      said += saidThen;
      expect(targetScreen.text).to.equal('');
      await target.start();
      source = target.source();
      expect(target.source()).to.equal(source);
      expect((await source.info()).state).to.equal('running');
      screen = targetScreen;
    }
    await screen.until(() => screen.ticks().length >= 3);
    expect(successiveTicksOf(said + screen.text)[0]).to.equal(1);
  });

  it('is one domain: what ends it by one name ends it by the other', async () => {
    const target = await takenOver();
    const source = target.source();
    let completed = 0;
    target.events$.subscribe({ complete: () => completed++ });
    source.output$.subscribe({ complete: () => completed++ });
    await source.destroy();
    expect(completed).to.equal(2);
    expect((await target.info()).state).to.equal('destroyed');
    await expectCode(source.enableLogDirty(), 'DOMAIN_GONE');
    expect(target.source()).to.equal(source);

    const quitting = await takenOver();
    const ended = firstEvent(quitting.source());
    await quitting.input(Buffer.from('q'));
    expect(await ended).to.deep.equal({ kind: 'shutdown' });
    expect(await firstEvent(quitting)).to.deep.equal({ kind: 'shutdown' });
  });

  it('is none, if it ended before it ran', async () => {
    const target = keep(await openEmbeddedTarget(config));
    await target.destroy();
    expect(() => target.source())
      .to.throw()
      .with.property('code', 'DOMAIN_GONE');
  });

  async function takenOver() {
    const source = keep(await openEmbeddedSource(config));
    await source.start();
    const target = keep(await openEmbeddedTarget(config));
    const protection = await Protection.begin(source, target);
    await protection.checkpoint();
    await source.destroy();
    await protection.breakOff();
    await target.start();
    return target;
  }
});
