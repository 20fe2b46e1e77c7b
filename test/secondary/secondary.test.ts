// The secondary's pipeline at its ports, as transcripts (test/transcripts/secondary-*.txt).

import { transcripts } from '../support/transcripts.js';
import { playSecondary } from './virtual-secondary.js';

describe('secondary/secondary', () => {
  for (const what of [
    'way-up',
    'suspect',
    'resync',
    'standby-lost',
    'leave',
    'taking-over',
    'register',
    'switchover',
  ]) {
    describe(what, () => transcripts(`secondary-${what}.txt`, playSecondary));
  }
});
