"""A trained circuit on Rigetti devices, and on simulators that behave like them.

chip      what a device is: qubits, couplers, fidelities, native two-qubit gate; calibration is such a device made up
native    RY and CZ as RX(+-pi/2), RZ and CZ or iSWAP
placement which qubit each wire gets; routing what is done where two wires are not coupled; compile the three in a row
readout   readout errors measured and unfolded
braket    circuits for Amazon Braket; simulators, the strict emulator, AWS.    quil  the same for Rigetti's own cloud
backends  all of them behind one configuration key

No call of ours has reached a quantum processor: simulators and the emulator run here, the AWS path is tested with a
faked session, Quil programs up to where a server is needed.
"""
