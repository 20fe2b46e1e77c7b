// The ops tables of x86 HVM: complete, and doing nothing to pages.

import { expect } from 'chai';
import { restoreOpsFor, saveOpsFor } from '../../src/guest/tables.js';
import { GuestError } from '../../src/guest/error.js';
import { MemoryDomain } from '../memory/domain.js';
import { saveDomain } from '../../src/save/save.js';
import { DomainType, RecordType } from '../../src/stream/format.js';
import { driver, RecordingSink } from '../save/support.js';
import { readAll } from '../stream/streams.js';

describe('x86 HVM', () => {
  it('has all nine and all ten functions', () => {
    expect(Object.keys(saveOpsFor(DomainType.X86_HVM))).to.have.members([
      'pfnToGfn',
      'normalisePage',
      'setup',
      'staticData',
      'startOfStream',
      'startOfCheckpoint',
      'endOfCheckpoint',
      'checkVmState',
      'cleanup',
    ]);
    expect(Object.keys(restoreOpsFor(DomainType.X86_HVM))).to.have.members([
      'pfnToGfn',
      'pfnIsValid',
      'setGfn',
      'setPageType',
      'localisePage',
      'setup',
      'processRecord',
      'staticDataComplete',
      'streamComplete',
      'cleanup',
      // Beside libxc's ten.
      'recordTypes',
      'checkRecord',
    ]);
  });

  it('and x86 PV are the only types', () => {
    for (const type of [0, 3]) {
      for (const tableFor of [saveOpsFor, restoreOpsFor]) {
        try {
          tableFor(type);
          expect.fail('there is a table');
        } catch (error) {
          expect(error).to.be.instanceOf(GuestError);
          expect(error).to.include({ code: 'UNSUPPORTED_DOMAIN_TYPE' });
        }
      }
    }
  });

  it('turns the device model’s dirty tracking on, and off again if it was on', async () => {
    const domain = new MemoryDomain({ pages: 3 });
    await domain.start();
    const calls: boolean[] = [];
    const save = (fail: boolean): Promise<unknown> =>
      saveDomain({
        domain,
        sink: new RecordingSink(),
        streamType: 'plain',
        live: false,
        callbacks: {
          ...driver({ domain, checkpoints: 0 }),
          switchDeviceLogDirty(enable) {
            calls.push(enable);
            return fail ? Promise.reject(new Error('no device model')) : Promise.resolve();
          },
        },
      });
    await save(false);
    expect(calls).to.deep.equal([true, false]);
    let message = '';
    await save(true).catch((error: unknown) => {
      message = (error as Error).message;
    });
    expect(message).to.equal('no device model');
    expect(calls).to.deep.equal([true, false, true]);
  });

  it('leaves out what there is nothing to say about', async () => {
    const domain = new MemoryDomain({ pages: 1, params: [{ index: 19n, value: 0n }] });
    await domain.start();
    const sink = new RecordingSink();
    const callbacks = driver({ domain, checkpoints: 0 });
    await saveDomain({ domain, sink, streamType: 'plain', live: false, callbacks });
    expect(readAll(sink.octets()).map(({ type }) => type)).to.deep.equal([
      RecordType.STATIC_DATA_END,
      RecordType.PAGE_DATA,
      RecordType.X86_TSC_INFO,
      RecordType.HVM_CONTEXT,
      RecordType.END,
    ]);
  });
});
