import { useSyncExternalStore } from 'react';
import { useSyncStatus } from '../generated/index.js';
import { isConnected, setConnected, subscribeConnected } from '../network.js';

/** Who works here, how syncing stands, and the switch that cuts the network. */
export function Header({ waiter }: { readonly waiter: string }) {
  const connected = useSyncExternalStore(subscribeConnected, isConnected);
  const status = useSyncStatus();
  const live = status.connection === 'live';
  return (
    <header>
      <h1>Orders</h1>
      <span className="waiter">{waiter}</span>
      <p role="status" className={`pill ${live ? 'good' : connected ? 'waiting' : 'off'}`}>
        {live ? 'Live' : connected ? (status.isFailing ? 'No connection' : 'Connecting…') : 'Offline'}
        {status.unsynced > 0 && ` · ${status.unsynced} to send`}
      </p>
      {status.storage !== 'ok' && <p className="pill waiting">{status.storage === 'full' ? 'This device is full' : 'Little room left on this device'}</p>}
      <label className="switch">
        <input type="checkbox" role="switch" checked={connected} onChange={(change) => setConnected(change.target.checked)} />
        Network
      </label>
    </header>
  );
}
