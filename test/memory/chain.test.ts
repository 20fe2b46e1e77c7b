// The memory domain as a standby that is taken over to and protected in its turn.

import { expect } from 'chai';
import type { SourceDomain } from '../../src/hypervisor/port.js';
import { Protection } from '../hypervisor/protection.js';
import { firstDifference, pagePattern, targetFor } from '../save/support.js';
import { MemoryDomain } from './domain.js';

const PAGES = 64;

describe('a memory domain that was taken over to', () => {
  for (const emulator of [false, true]) {
    it(`is protected in its turn, three times (${emulator ? 'with' : 'without'} a device model)`, async () => {
      let machine = new MemoryDomain({ pages: PAGES, emulator });
      let source: SourceDomain = machine;
      await source.start();
      for (let generation = 0; generation < 3; generation++) {
        const standby = targetFor(PAGES, emulator);
        expect(() => standby.source())
          .to.throw()
          .with.property('code', 'WRONG_STATE');
        const protection = await Protection.begin(source, standby);
        for (let epoch = 0; epoch < 4; epoch++) {
          // Another page each time: those of the checkpoints before must be there, too.
          machine.write(generation * 4 + epoch, pagePattern(epoch, generation));
          machine.context.fill(generation * 16 + epoch);
          machine.emulatorState.fill(generation * 16 + epoch + 1);
          await protection.checkpoint();
          expect(firstDifference(machine, standby)).to.equal(-1);
        }
        expect(protection.dirtyPages.slice(1)).to.deep.equal([1, 1, 1]);
        const { context, emulatorState } = machine;
        await source.destroy();
        await protection.breakOff();
        expect(standby.context).to.deep.equal(context);
        expect(standby.emulatorState).to.deep.equal(emulatorState);
        await standby.start();
        source = standby.source();
        expect((await source.info()).state).to.equal('running');
        machine = standby;
      }
      await source.destroy();
      expect((await machine.info()).state).to.equal('destroyed');
      expect(machine.source()).to.equal(source);
    });
  }
});
