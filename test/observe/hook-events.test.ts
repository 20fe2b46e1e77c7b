import { expect } from 'chai';
import { failoverHookEvents, fencedHookEvents, type HookEvent } from '../../src/observe/hooks/events.js';
import {
  failoverCompleted,
  failoverFailed,
  failoverStarted,
  FakePrimary,
  FakeSecondary,
  status,
} from '../service/fakes.js';

describe('hook events', () => {
  it('of a secondary are its failover', () => {
    const service = new FakeSecondary();
    const events: HookEvent[] = [];
    const subscription = failoverHookEvents(service).subscribe((one) => events.push(one));
    for (const one of [failoverStarted, failoverCompleted, failoverFailed]) service.failover$.next(one);
    subscription.unsubscribe();
    expect(events.map((one) => one.event)).to.deep.equal([
      'failover-started',
      'failover-completed',
      'failover-failed',
    ]);
    expect(events[0]).to.include({ domain: 'web', epoch: 7, reason: 'HEARTBEAT_TIMEOUT' });
    expect(events[1]?.takeoverSeconds).to.equal(0.01);
    expect(events[2]?.error?.code).to.equal('DOMAIN_GONE');
  });

  it('of a primary are its fencing', () => {
    const service = new FakePrimary(status({ role: 'fenced', epochAcknowledged: 9 }));
    const events: HookEvent[] = [];
    const subscription = fencedHookEvents(service).subscribe((one) => events.push(one));
    const transition = { domain: 'web', link: 'down', reason: 'FENCED', atMs: 1 } as const;
    service.transitions$.next({ ...transition, role: 'primary' });
    service.transitions$.next({ ...transition, role: 'fenced' });
    subscription.unsubscribe();
    expect(events).to.have.length(1);
    expect(events[0]).to.include({ event: 'fenced', domain: 'web', epoch: 9, reason: 'FENCED' });
  });
});
